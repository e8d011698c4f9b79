"""How shrk gets onto machines: the script that installs a node, and the release that it installs."""
