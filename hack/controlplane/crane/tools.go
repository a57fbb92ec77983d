//go:build tools

// Package tools makes `go mod tidy` keep what crane's command needed.
package tools

import (
	_ "github.com/google/go-containerregistry/cmd/crane"
)
