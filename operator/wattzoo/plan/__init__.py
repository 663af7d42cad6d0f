"""One render function per kind and a planner that puts their objects in order. Pure: no client in sight."""
