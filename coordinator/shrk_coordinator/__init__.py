"""The coordinator: callers in front (`data_plane`), nodes behind (`control_plane`), decisions in `state`."""
