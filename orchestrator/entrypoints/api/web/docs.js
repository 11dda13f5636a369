// Shows /openapi.json with Swagger UI. A file of its own: our pages run no inline scripts.
/* global SwaggerUIBundle */

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null, // the default one is a server of somebody else
});
