"""What protoc makes of proto/palisade/v1: the messages as they are on the wire."""
