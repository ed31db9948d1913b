package api

import (
	_ "embed"
	"net/http"

	"github.com/labstack/echo/v4"
)

// openapi describes every call; tests hold it to the calls and fields there are.
//
//go:embed openapi.json
var openapi []byte

func serveOpenAPI(c echo.Context) error {
	c.Response().Header().Set("Access-Control-Allow-Origin", "*") // readers of such descriptions run in browsers
	return c.Blob(http.StatusOK, "application/json; charset=utf-8", openapi)
}
