"""Generated from `proto/schema/shrk_contract/v1` by `make proto`; never edited."""
