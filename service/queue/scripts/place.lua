-- Where a job stands that no worker has read → {jobs that would go first now, passes of the network that they take}, or nil
-- when it waits no more. The passes follow from its turn: until it comes, each owner has as many as lie between.
local rank, turn = redis.call('ZRANK', ORDER, id), redis.call('ZSCORE', ORDER, id)
if not rank then
  return false
end
local next_turn = redis.call('ZRANGE', ORDER, 0, 0, 'WITHSCORES')[2]
local owners = redis.call('ZCARD', TURNS) - (redis.call('ZSCORE', TURNS, '@now') and 1 or 0)
return {rank, math.ceil((turn - next_turn) * math.max(1, owners))}
