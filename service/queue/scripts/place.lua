-- Where a job stands that no worker has read → {jobs of its class that would go first now, passes of the network that go
-- first}, or nil when it waits no more. FIRST_ORDER, FIRST_TURNS: of the class that goes before its own, if there is one.
-- The passes follow from a turn: until it comes, each owner has as many as lie between.
local function passes_until(turn, order, turns)
  local next_turn = redis.call('ZRANGE', order, 0, 0, 'WITHSCORES')[2]
  local owners = redis.call('ZCARD', turns) - (redis.call('ZSCORE', turns, '@now') and 1 or 0)
  return next_turn and (turn - next_turn) * math.max(1, owners) or 0
end

local rank, turn = redis.call('ZRANK', ORDER, id), redis.call('ZSCORE', ORDER, id)
if not rank then
  return false
end
local passes = passes_until(turn, ORDER, TURNS)
if FIRST_ORDER then
  local last_turn = redis.call('ZRANGE', FIRST_TURNS, -1, -1, 'WITHSCORES')[2] or 0
  passes = passes + passes_until(last_turn, FIRST_ORDER, FIRST_TURNS)
end
return {rank, math.ceil(passes)}
