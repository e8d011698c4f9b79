"""The nodes' side: enrolment, identity, and the links."""
