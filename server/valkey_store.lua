-- What happens inside Valkey or Redis, atomically: the rules of fencing.py where the data is.
--
-- Keys, all under one prefix with one hash tag, so that all are in one slot:
--   PREFIX:sequence:ID    hash: digest owner model fence touched steps bytes, while it is kept;
--                               digest model fence step reason until, once it is gone (a tombstone)
--   PREFIX:checkpoint:ID  hash: step -> the checkpoint
--   PREFIX:touched        sorted set: ID by the time of its last write or claim
--   PREFIX:owner:OWNER    likewise, of one owner
--   PREFIX:bytes          hash: owner -> bytes of checkpoints
--   PREFIX:total          bytes of all checkpoints
--
-- KEYS[1]: PREFIX:touched. ARGV: verb, now, the time at or before which what was touched last has expired, for how many
-- seconds a tombstone stands, how many checkpoints are kept, and what the verb takes.
-- Numbers are doubles here: fences, steps and times are passed on as the text that they came as, and only compared.

local touched = KEYS[1]
local prefix = string.sub(touched, 1, -8)
local verb, now, cutoff, tombstone, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local FIRST = 6

local function text(number)
  return string.format('%.0f', number)
end

-- A sequence as of now: { kept = true, ... }, { reason = ..., ... }, or nil.
local function look(id)
  local key = prefix .. 'sequence:' .. id
  local f = redis.call('HMGET', key, 'fence', 'digest', 'model', 'reason', 'until', 'step', 'owner', 'touched', 'steps', 'bytes')
  if not f[1] then
    return nil
  end
  local found = { id = id, fence = f[1], digest = f[2], model = f[3] }
  if f[4] then
    if tonumber(f[5]) <= tonumber(now) then
      return nil
    end
    found.reason, found.step = f[4], f[6]
    return found
  end
  found.owner, found.bytes, found.steps = f[7], tonumber(f[10]), {}
  for step in string.gmatch(f[9], '%d+') do
    table.insert(found.steps, step) -- the newest first
  end
  found.step = found.steps[1] or ''
  if tonumber(f[8]) <= tonumber(cutoff) then
    found.reason = 'expired'
  else
    found.kept = true
  end
  return found
end

local function touch(sequence)
  redis.call('ZADD', touched, now, sequence.id)
  redis.call('ZADD', prefix .. 'owner:' .. sequence.owner, now, sequence.id)
end

local function count(owner, change)
  if change ~= 0 then
    redis.call('INCRBY', prefix .. 'total', text(change))
    redis.call('HINCRBY', prefix .. 'bytes', owner, text(change))
  end
end

local function bury(sequence, reason, fence)
  local key, owner = prefix .. 'sequence:' .. sequence.id, prefix .. 'owner:' .. sequence.owner
  redis.call('DEL', key, prefix .. 'checkpoint:' .. sequence.id)
  if tonumber(tombstone) > 0 then
    redis.call('HSET', key, 'digest', sequence.digest, 'model', sequence.model, 'fence', fence,
      'step', sequence.step, 'reason', reason, 'until', string.format('%.17g', tonumber(now) + tonumber(tombstone)))
    redis.call('PEXPIRE', key, text(math.ceil(tonumber(tombstone) * 1000)))
  end
  redis.call('ZREM', touched, sequence.id)
  redis.call('ZREM', owner, sequence.id)
  count(sequence.owner, -sequence.bytes)
  if redis.call('EXISTS', owner) == 0 then
    redis.call('HDEL', prefix .. 'bytes', sequence.owner)
  end
end

local function refused(id, fence, birth, digest)
  local sequence = look(id)
  if not sequence then
    return birth and {} or { 'unknown', '0' }
  elseif not sequence.kept then
    return { sequence.reason, sequence.fence }
  elseif birth and sequence.digest ~= digest then
    return { 'not yours', sequence.fence }
  elseif tonumber(fence) < tonumber(sequence.fence) then
    return { 'fenced', sequence.fence }
  end
  return { sequence = sequence }
end

-- Keeps one checkpoint: later steps go, the same is replaced, of the earlier ones the newest and those to spare stay.
local function place(sequence, step, data, spare)
  local key, number, change = prefix .. 'checkpoint:' .. sequence.id, tonumber(step), string.len(data)
  local steps, spared, newest = { step }, {}, 1
  for other in string.gmatch(spare, '%d+') do
    spared[other] = true
  end
  for _, other in ipairs(sequence.steps) do
    if tonumber(other) < number and spared[other] then
      table.insert(steps, other)
    elseif tonumber(other) < number and newest < keep then
      table.insert(steps, other)
      newest = newest + 1
    else
      change = change - redis.call('HSTRLEN', key, other)
      redis.call('HDEL', key, other)
    end
  end
  redis.call('HSET', key, step, data)
  count(sequence.owner, change)
  redis.call('HSET', prefix .. 'sequence:' .. sequence.id, 'fence', sequence.fence, 'touched', now,
    'steps', table.concat(steps, ' '), 'bytes', text(sequence.bytes + change))
end

-- id, fence, step, data, '1' if there is a birth, digest, owner, model, steps to spare
-- -> place in the batch, reason, fence of the refused
local function write()
  local answers = {}
  for at = FIRST, #ARGV, 9 do
    local id, fence, step, data, birth = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4] == '1'
    local found = refused(id, fence, birth, ARGV[at + 5])
    if found[1] then
      table.insert(answers, { (at - FIRST) / 9, found[1], found[2] })
    else
      local sequence = found.sequence
      if not sequence then
        sequence = { id = id, owner = ARGV[at + 6], steps = {}, bytes = 0 }
        redis.call('DEL', prefix .. 'sequence:' .. id)
        redis.call('HSET', prefix .. 'sequence:' .. id, 'digest', ARGV[at + 5], 'owner', sequence.owner, 'model', ARGV[at + 7])
      end
      sequence.fence = fence
      place(sequence, step, data, ARGV[at + 8])
      touch(sequence)
    end
  end
  return answers
end

-- id, digest -> reason or '', fence, owner, model, step; and the sequence, if it can be had. The digests are of secrets,
-- so how long their comparison takes tells nothing about these.
local function seen(id, digest)
  local sequence = look(id)
  if not sequence then
    return { 'unknown', '', '', '', '' }
  elseif sequence.digest ~= digest then
    return { 'not yours', '', '', '', '' }
  elseif not sequence.kept then
    return { sequence.reason, '', '', sequence.model, sequence.step }
  end
  return { '', sequence.fence, sequence.owner, sequence.model, sequence.step }, sequence
end

-- id, digest -> as `seen` has it, and the checkpoints
local function read()
  local answers = {}
  for at = FIRST, #ARGV, 2 do
    local answer, sequence = seen(ARGV[at], ARGV[at + 1])
    for _, step in ipairs(sequence and sequence.steps or {}) do
      table.insert(answer, redis.call('HGET', prefix .. 'checkpoint:' .. sequence.id, step))
    end
    table.insert(answers, answer)
  end
  return answers
end

-- id, digest -> as `seen` has it, with the fence that each has now. All are taken, or none.
local function claim()
  local answers, milliseconds, all = {}, math.floor(tonumber(now) * 1000), true
  for at = FIRST, #ARGV, 2 do
    local answer = seen(ARGV[at], ARGV[at + 1])
    if answer[1] == '' and tonumber(answer[2]) - milliseconds > 1000 then -- `fencing.LATE`
      answer[1] = 'fenced'
    end
    all = all and answer[1] == ''
    table.insert(answers, answer)
  end
  if all then
    for at = FIRST, #ARGV, 2 do
      local id, answer = ARGV[at], answers[(at - FIRST) / 2 + 1]
      local fence = redis.call('HGET', prefix .. 'sequence:' .. id, 'fence')
      answer[2] = text(math.max(tonumber(fence) + 1, milliseconds))
      redis.call('HSET', prefix .. 'sequence:' .. id, 'fence', answer[2], 'touched', now)
      touch({ id = id, owner = answer[3] })
    end
  end
  return answers
end

-- id, fence, reason -> place in the batch, reason, fence of the refused
local function finish()
  local answers = {}
  for at = FIRST, #ARGV, 3 do
    local fence, reason = ARGV[at + 1], ARGV[at + 2]
    local found = refused(ARGV[at], fence, false)
    if found.sequence then
      bury(found.sequence, reason, fence)
    elseif found[1] ~= reason or found[2] ~= fence then -- else it is this very end, once more
      table.insert(answers, { (at - FIRST) / 3, found[1], found[2] })
    end
  end
  return answers
end

-- What is to be buried by age. Of one that Valkey itself has evicted, against our word, only its age is left.
local function oldest(id)
  local sequence = look(id)
  if not sequence then
    redis.call('ZREM', touched, id)
  end
  return sequence
end

-- limit -> how many have expired, and whether there are more
local function expire()
  local limit = tonumber(ARGV[FIRST])
  local ids = redis.call('ZRANGEBYSCORE', touched, '-inf', cutoff, 'LIMIT', 0, limit + 1)
  for at = 1, math.min(#ids, limit) do
    local sequence = oldest(ids[at])
    if sequence then
      bury(sequence, 'expired', sequence.fence)
    end
  end
  return { math.min(#ids, limit), #ids > limit and 1 or 0 }
end

-- id, the time of its last touch as it was seen -> id, owner, bytes, reason of those that were not touched since
local function evict()
  local answers = {}
  for at = FIRST, #ARGV, 2 do
    local id, seen = ARGV[at], ARGV[at + 1]
    local score = redis.call('ZSCORE', touched, id)
    local sequence = score and tonumber(score) == tonumber(seen) and oldest(id)
    if sequence then
      local reason = sequence.reason or 'evicted'
      bury(sequence, reason, sequence.fence)
      table.insert(answers, { id, sequence.owner, text(sequence.bytes), reason })
    end
  end
  return answers
end

if verb == 'write' then
  return write()
elseif verb == 'claim' then
  return claim()
elseif verb == 'read' then
  return read()
elseif verb == 'end' then
  return finish()
elseif verb == 'expire' then
  return expire()
end
return evict()
