module wattzoo.dev/e2e/cluster/modules/helm

go 1.26.0
