//go:build tools

// Package tools makes `go mod tidy` keep what helm's command needed.
package tools

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
