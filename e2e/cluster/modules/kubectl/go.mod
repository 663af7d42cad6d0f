module wattzoo.dev/e2e/cluster/modules/kubectl

go 1.26.0
