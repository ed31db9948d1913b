package api

import (
	_ "embed"
	"net/http"

	"github.com/labstack/echo/v4"
)

// openapi describes every call; a test holds it to the methods there are.
//
//go:embed openapi.json
var openapi []byte

func serveOpenAPI(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/json; charset=utf-8", openapi)
}
