module wattzoo.dev/e2e/cluster/modules/prometheus

go 1.26.0
