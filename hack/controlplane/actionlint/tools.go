//go:build tools

// Package actionlint keeps the requirement of actionlint in go.mod.
package actionlint

import _ "github.com/rhysd/actionlint/cmd/actionlint"
