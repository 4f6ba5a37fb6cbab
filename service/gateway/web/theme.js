/** Light, dark, or as the system has it. A plain script in the head: it must run before the first paint. */

{
  const THEME = "vqd-theme";
  const NAMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  const stored = () => {
    try {
      return localStorage.getItem(THEME) ?? "";
    } catch {
      return ""; // a browser that keeps nothing
    }
  };
  let theme = stored() in NAMES ? stored() : "";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    for (const name of ["title", "aria-label"]) button?.setAttribute(name, NAMES[theme]);
  };
  show();
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme")?.addEventListener("click", () => {
      const all = Object.keys(NAMES);
      theme = all[(all.indexOf(theme) + 1) % all.length];
      localStorage.setItem(THEME, theme);
      show();
    });
  });
}
