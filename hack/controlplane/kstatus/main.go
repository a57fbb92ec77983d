// kstatus prints what the kstatus library (Flux, Config Sync, kpt) makes of one object: JSON on
// standard input, "STATUS message" on standard output.
package main

import (
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	object := unstructured.Unstructured{}
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = object.UnmarshalJSON(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(2)
	}
	result, err := status.Compute(&object)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
	fmt.Println(result.Status, result.Message)
}
