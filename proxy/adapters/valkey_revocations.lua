-- The list of revocations that workers and replicas share: numbered lines that are only ever appended, so that whoever
-- follows reads what is new. A line that was taken back or is over leaves a hole.
--
-- KEYS[1]  hash: `list`, an id that a new list gets; `last`, the number of its last line; `taken`, how often lines were
--          taken back; `1`, `2`, ...: the lines; `s:` and the digest of what a line revokes: its number
-- ARGV[1]  {'read', from, most}: lines from a number on
--          {'add', id, lines}: lines are {digest, line}; the list gets the id if there is none
--          {'remove', digests, back}: `back` says that they are taken back, not over
-- returns  {list, last, taken, lines that were asked for (false: a hole), how many were added or removed}
local verb, first, second = unpack(cmsgpack.unpack(ARGV[1]))
local key = KEYS[1]
local stored = redis.call('HMGET', key, 'list', 'last', 'taken')
local list, last, taken = stored[1] or '', tonumber(stored[2] or 0), tonumber(stored[3] or 0)
local lines, changed = {}, 0

local function name(number) return string.format('%.0f', number) end
local function number(digest) return redis.call('HMGET', key, 's:' .. digest)[1] end

if verb == 'read' then
  local names = {}
  for n = first, math.min(last, first + second - 1) do names[#names + 1] = name(n) end
  if #names > 0 then lines = redis.call('HMGET', key, unpack(names)) end
elseif verb == 'add' then
  if list == '' then
    list = first
    redis.call('HSET', key, 'list', list)
  end
  for _, entry in ipairs(second) do
    if not number(entry[1]) then
      last, changed = last + 1, changed + 1
      redis.call('HSET', key, name(last), entry[2], 's:' .. entry[1], name(last), 'last', name(last))
    end
  end
elseif verb == 'remove' then
  for _, digest in ipairs(first) do
    local at = number(digest)
    if at then
      changed = changed + 1
      redis.call('HDEL', key, at, 's:' .. digest)
    end
  end
  if second and changed > 0 then
    taken = taken + 1
    redis.call('HSET', key, 'taken', name(taken))
  end
end
return cmsgpack.pack({list, last, taken, lines, changed})
