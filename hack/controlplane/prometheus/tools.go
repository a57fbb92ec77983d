//go:build tools

// Package tools makes `go mod tidy` keep the modules that promtool needs.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
