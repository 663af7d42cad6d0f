"""The plant: replicas, fleets and closed loops as pure discrete-event models, in real time or as fast as they can."""
