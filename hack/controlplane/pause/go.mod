// Holds the namespaces of a pod on the test node; never part of the product.
module controlplane/pause

go 1.24.0
