module wattzoo.dev/e2e/cluster/modules/envoy-gateway

go 1.26.0
