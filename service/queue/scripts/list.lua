-- Ids of an owner's jobs, at most ``limit``, or nil when ``after`` is none of them: those that wait or run, newest first,
-- then those that ended, last ended first; all of them behind the job ``after``, if that is not ''.
-- A page's last job may wait when it is shown, and have ended when the next page is asked for. What came behind it is
-- behind it still, so how it was shown is noted with it.
local time = redis.call('TIME')
local now = string.format('(%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

local function jobs_behind(key, place, least)
  return redis.call('ZREVRANGEBYSCORE', key, '+inf', least, 'LIMIT', place, limit)
end

local function job(id)
  return '{vqd}:job:' .. id
end

local waiting_from, ended_from = 0, 0
if after ~= '' then
  local rank = redis.call('ZREVRANK', JOBS, after)
  waiting_from = rank and rank + 1
  local ended_ms, created_ms, shown_waiting = unpack(
    redis.call('HMGET', job(after), 'finished_ms', 'created_ms', 'shown_waiting'))
  local score = ended_ms and string.format('%.0f', ended_ms + result_ttl_s * 1000)
  for _, kept in ipairs(score and redis.call('ZRANGEBYSCORE', ENDED, score, score) or {}) do
    if kept:match('^%S+') == after and shown_waiting then
      waiting_from = redis.call('ZCOUNT', JOBS, '(' .. created_ms, '+inf')
    elseif kept:match('^%S+') == after then
      ended_from = redis.call('ZREVRANK', ENDED, kept) + 1
      waiting_from = redis.call('ZCARD', JOBS)
    end
  end
  if not waiting_from then
    return false
  end
end
local found = jobs_behind(JOBS, waiting_from, '-inf')
local waiting = #found
for _, kept in ipairs(jobs_behind(ENDED, ended_from, now)) do
  if #found < tonumber(limit) then
    table.insert(found, kept:match('^%S+'))
  end
end
if #found == tonumber(limit) then  -- one more than is shown
  local last = job(found[limit - 1])
  local waits = limit - 1 <= waiting and redis.call('EXISTS', last) == 1
  -- A Redis that takes no writes now can still be read.
  redis.pcall(unpack(waits and {'HSET', last, 'shown_waiting', 1} or {'HDEL', last, 'shown_waiting'}))
end
return found
