"""Generated gRPC stubs (hack/update-stubs); only `driver/` imports them. Never edit them."""
