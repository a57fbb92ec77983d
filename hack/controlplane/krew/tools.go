//go:build tools

// Package krew keeps the requirement of krew in go.mod.
package krew

import _ "sigs.k8s.io/krew/cmd/krew"
