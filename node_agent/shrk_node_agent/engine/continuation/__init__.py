"""Going on with an answer that another node began: by its token ids, or by a replay that stays silent at first."""
