-- Deliver up to ``room`` rows of unread entries to a worker of a group → {entries of each stream, its newest id, 1 if one waits}.
-- The most urgent stream first; the last ones leave ``reserve`` rows for what is more urgent. What does not fit waits,
-- unless the worker is empty. Nothing can come between the two answers: who waits for newer ids misses none.
local left, empty, delivered, newest, waits = tonumber(room), held == '0', {}, {}, 0
for index, stream in ipairs(STREAMS) do
  local allowed = left - (stream == PATIENT and tonumber(reserve) or 0)
  local count = 0
  for _, entry in ipairs(allowed > 0 and unread(stream, group, allowed) or {}) do
    local rows = rows_of(entry)
    if rows > allowed and not (empty and count == 0) then
      waits = 1
      break
    end
    count, allowed, left = count + 1, allowed - rows, left - rows
  end
  local read = count > 0
    and redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT', count, 'STREAMS', stream, '>')
  delivered[index] = read and read[1][2] or {}
  empty = empty and #delivered[index] == 0
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  newest[index] = last and last[1] or '0-0'
end
return {delivered, newest, waits}
