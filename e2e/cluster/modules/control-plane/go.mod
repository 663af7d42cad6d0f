module wattzoo.dev/e2e/cluster/modules/control-plane

go 1.26.0
