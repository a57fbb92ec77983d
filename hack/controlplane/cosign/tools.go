//go:build tools

// Package cosign keeps the requirement of cosign in go.mod.
package cosign

import _ "github.com/sigstore/cosign/v3/cmd/cosign"
