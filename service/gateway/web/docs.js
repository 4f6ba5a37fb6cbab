// Swagger UI on our own document, dark where the playground is. Beside the page, since its policy lets no script stand in it.
{
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const { theme } = document.documentElement.dataset;
    document.documentElement.classList.toggle("dark-mode", theme ? theme === "dark" : system.matches);
  };
  system.addEventListener("change", paint);
  paint();
}
document.addEventListener("DOMContentLoaded", () => {
  SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true, tryItOutEnabled: true });
});
