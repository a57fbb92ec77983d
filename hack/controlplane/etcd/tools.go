//go:build tools

// Package tools makes `go mod tidy` keep what etcd's server needed.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
)
