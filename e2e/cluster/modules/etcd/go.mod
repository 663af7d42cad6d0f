module wattzoo.dev/e2e/cluster/modules/etcd

go 1.26.0
