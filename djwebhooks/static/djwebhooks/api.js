"use strict";

const { schema, csrfHeader, csrfToken } = document.getElementById("api").dataset;

SwaggerUIBundle({
  url: schema,
  dom_id: "#api",
  deepLinking: true,
  // Its default asks a server of somebody else.
  validatorUrl: null,
  requestInterceptor(request) {
    if (new URL(request.url, location.href).origin === location.origin) {
      request.headers[csrfHeader] = csrfToken;
    }
    return request;
  },
});
