module wattzoo.dev/e2e/cluster/modules/kwok

go 1.26.0
