-- Deliver up to ``room`` rows to a worker of a group → {entries of each lane's stream, the bell's newest id, 1 if one waits}.
-- The most urgent lane first; the last ones leave ``reserve`` rows for what is more urgent. What does not fit waits,
-- unless the worker is empty. ``LANES``: of each its stream, its order and its turns.
--
-- A lane's order is start-time fair queueing (Goyal, Vin and Cheng 1996): a job waits at the turn that its owner had when
-- it came, and the least goes first. Who has nothing waiting begins at the lane's time, which follows the turns taken, so a
-- newcomer waits for no backlog of another owner. The time also moves by each job's part of a round of all owners: else new
-- owners, each with one job and without end, would keep out whoever has had a turn.
local left, empty, delivered, waits = tonumber(room), held == '0', {}, 0
for place = 1, #LANES, 3 do
  local stream, order, turns = LANES[place], LANES[place + 1], LANES[place + 2]
  local allowed, count, stuck = left - (stream == PATIENT and tonumber(reserve) or 0), 0, false

  local function fits(rows)
    stuck = rows > allowed and not (empty and count == 0)
    if stuck then
      waits = 1
    else
      count, allowed, left = count + 1, allowed - rows, left - rows
    end
    return not stuck
  end

  -- Handed over, or put there by a gateway that knew no turns.
  for _, entry in ipairs(allowed > 0 and unread(stream, group, allowed) or {}) do
    if not fits(rows_of(entry)) then
      break
    end
  end
  while allowed > 0 and not stuck do
    local id, turn = unpack(redis.call('ZRANGE', order, 0, 0, 'WITHSCORES'))
    if not id then
      break
    end
    local job = '{vqd}:job:' .. id
    local status, rows, priority, share = unpack(redis.call('HMGET', job, 'status', 'rows', 'priority', 'share'))
    if status ~= 'queued' then  -- ended by a gateway that knew no order
      redis.call('ZREM', order, id)
    elseif fits(tonumber(rows)) then
      redis.call('ZREM', order, id)
      redis.call('HSET', job, 'entry', redis.call('XADD', stream, '*', 'job', id, 'priority', priority, 'rows', rows))
      local now = math.max(turn, tonumber(redis.call('ZSCORE', turns, '@now')) or 0)
      now = now + share / (redis.call('ZCARD', turns) + 1)
      redis.call('ZADD', turns, now, '@now')
      -- Whose turn has passed begins with the lane's time anyway.
      redis.call('ZREMRANGEBYSCORE', turns, '-inf', string.format('(%.17g', now))
    end
  end
  local read = count > 0
    and redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT', count, 'STREAMS', stream, '>')
  table.insert(delivered, read and read[1][2] or {})
  empty = empty and #delivered[#delivered] == 0
end
-- Nothing can come between this and the look above: who waits for a newer ring misses none.
local last = redis.call('XREVRANGE', BELL, '+', '-', 'COUNT', 1)[1]
return {delivered, last and last[1] or '0-0', waits}
