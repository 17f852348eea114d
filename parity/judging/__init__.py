"""Both sides held against each other and against their bounds: findings, stage by stage and tensor by tensor."""
