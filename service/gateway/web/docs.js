// Swagger UI on our own document. Beside the page, since its policy lets no script stand in it.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true, tryItOutEnabled: true });
