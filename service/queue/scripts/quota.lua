-- Put in front of the script that accepts jobs, behind common.lua: what an account has left. A limit of 0 is none.
-- TURNS, ORDER: start-time fair queueing; see read.lua, which is where a turn comes.
local MINUTE_MS = 60000
-- An owner may have so many times the places that are still free: so some are left for whoever has none.
local CROWD = 8
-- Of its oldest jobs so many are looked at before the limit refuses: a worker of another version may leave an ended one.
local OLDEST = 10

-- When what was spent has come back, and how long a job of ``cost`` must wait; it waits for no more than a whole minute's
-- worth, so that one which costs more can run as well, and then the next ones wait longer.
local function spending(now)
  local limit = tonumber(cost_per_minute)
  if limit == 0 then
    return {takes_ms = 0, debt_ms = 0, wait_ms = 0}
  end
  local debt_ms = math.max(0, (tonumber(redis.call('HGET', owned(owner, 'used'), 'spent_until_ms')) or 0) - now)
  local takes_ms = cost * MINUTE_MS / limit
  return {
    takes_ms = takes_ms,
    debt_ms = debt_ms,
    wait_ms = debt_ms + math.min(takes_ms, MINUTE_MS) - MINUTE_MS,
  }
end

local function spend(now, bill)
  if bill.takes_ms > 0 then
    bill.debt_ms = bill.debt_ms + bill.takes_ms
    local used = owned(owner, 'used')
    redis.call('HSET', used, 'spent_until_ms', integer(now + bill.debt_ms))
    keep_for(used, math.ceil(bill.debt_ms / 1000) + 1)
  end
end

-- Jobs of the owner that wait or run.
local function jobs_of_owner()
  local jobs, limit = owned(owner, 'jobs'), tonumber(most_jobs)
  if limit > 0 and redis.call('ZCARD', jobs) >= limit then
    for _, other in ipairs(redis.call('ZRANGE', jobs, 0, OLDEST - 1)) do
      local status = redis.call('HGET', '{vqd}:job:' .. other, 'status')
      if not status or terminal(status) then
        redis.call('ZREM', jobs, other)
      end
    end
  end
  return redis.call('ZCARD', jobs)
end

-- Milliseconds until the owner's pictures take less than the limit, 0 when they do.
local function until_room(now)
  if tonumber(most_bytes) == 0 then
    return 0
  end
  forget_expired(owner, now)
  local _, first_ends_ms = unpack(redis.call('ZRANGE', owned(owner, 'ended'), 0, 0, 'WITHSCORES'))
  local bytes = tonumber(redis.call('HGET', owned(owner, 'used'), 'bytes')) or 0
  return bytes >= tonumber(most_bytes) and math.max(1, first_ends_ms - now) or 0
end

-- Which limit of the owner's refuses the job, and for how long in ms; nil for none. ``active``: jobs of everybody.
local function refusal(now, active, bill)
  if owner == '' then
    return nil
  end
  local jobs = jobs_of_owner()
  if tonumber(most_jobs) > 0 and jobs >= tonumber(most_jobs) then
    return 'too many jobs', 0
  end
  if jobs >= CROWD * (capacity - active) and active < capacity then
    return 'crowd', 0
  end
  if bill.wait_ms > 0 then
    return 'too costly', bill.wait_ms
  end
  local wait_ms = until_room(now)
  if wait_ms > 0 then
    return 'too many bytes', wait_ms
  end
end

-- The job's place in the order: its owner's next turn, which the job moves on by what it costs; see read.lua.
local function enter_the_order()
  local now = tonumber(redis.call('ZSCORE', TURNS, '@now')) or 0
  local turn, share = math.max(now, tonumber(redis.call('ZSCORE', TURNS, owner)) or 0), cost / weight
  redis.call('ZADD', ORDER, turn, id)
  redis.call('ZADD', TURNS, turn + share, owner)
  return share
end
