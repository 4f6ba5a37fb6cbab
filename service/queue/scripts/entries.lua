-- Put in front of scripts that look at entries of job streams.
-- How many rows the entry's job has; one whose writer did not say, or which is gone, counts as one.
local function rows_of(entry)
  for field = 1, entry and #entry[2] or 0, 2 do
    if entry[2][field] == 'rows' then
      return tonumber(entry[2][field + 1]) or 1
    end
  end
  return 1
end

-- The id of the last entry that a worker of the group has read.
local function last_read(stream, group)
  local groups = redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'GROUPS', stream) or {}
  for _, row in ipairs(groups) do
    local fields = {}
    for field = 1, #row, 2 do
      fields[row[field]] = row[field + 1]
    end
    if fields.name == group then
      return fields['last-delivered-id']
    end
  end
  return '0-0'
end

local function unread(stream, group, count)
  return redis.call('XRANGE', stream, '(' .. last_read(stream, group), '+', 'COUNT', count)
end
