-- arq's names, filled in from arq.constants; every script of the loop starts with these lines.
local JOB, IN_PROGRESS, RETRY = '{job}', '{in_progress}', '{retry}'
local RESULT, ABORTS = '{result}', '{aborts}'
-- The loop's own names.
local UNKNOWN, CLAIMS, QUARANTINE = '{unknown}', '{claims}', '{quarantine}'
-- What a stock arq worker writes where this loop writes its own id.
local STOCK = '1'
-- arq's own lifetime of a try counter; the count of open claims has the same.
local RETRY_TTL_S = 88400
-- A larger count of tries, or a longer id, is nobody's.
local TRIES_MAX, ID_BYTES_MAX = 1000000000, 65536
-- Entries that the quarantine of a queue holds, and bytes of an id or a body that one keeps.
local QUARANTINE_MAX, QUARANTINE_BYTES_MAX = 10000, 4096

-- Milliseconds by Redis' clock, rounded as arq's clients round theirs: a job enqueued "now" is due.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor((tonumber(time[2]) + 500) / 1000)
end

-- Read a key that anybody may have written: nil where it has another type than it should.
local function read(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then
    return answer
  end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then
    return nil
  end
  return redis.call(command, key, ...)  -- another error is not the key's: it ends the script
end

-- Whether `worker`, who counted `try` when it claimed, still holds the job. A lease that lapsed is
-- still its own while no other claim has counted a try since.
local function holds(worker, id, try)
  local holder = read('GET', IN_PROGRESS .. id)
  if holder then
    return holder == worker, holder
  end
  return read('GET', RETRY .. id) == try, false
end

-- A whole number that somebody wrote as text, nil where it is none.
local function whole(text)
  return text and tonumber(string.match(text, '^%d+$') or nil)
end

-- Add one to a count; what is no count, or an absurd one, starts again with one.
local function count_up(key)
  local count = redis.pcall('INCR', key)
  if type(count) ~= 'number' or count < 1 or count > TRIES_MAX then
    redis.call('SET', key, 1)
    count = 1
  end
  redis.call('EXPIRE', key, RETRY_TTL_S)
  return count
end

local function give_back_try(id)
  local tries = redis.pcall('DECR', RETRY .. id)
  if type(tries) ~= 'number' or tries <= 0 then
    redis.call('DEL', RETRY .. id)
  end
end

local function hex(bytes)
  return (string.gsub(string.sub(bytes, 1, QUARANTINE_BYTES_MAX), '.', function(byte)
    return string.format('%02x', string.byte(byte))
  end))
end

local function dump_of(key)
  local dump = redis.pcall('DUMP', key)
  return type(dump) == 'string' and dump
end

-- The beginning of a body, whatever its type: of a string its bytes, of others what DUMP says.
local function beginning_of(key, type_name)
  if type_name == 'string' then
    return redis.call('GETRANGE', key, 0, QUARANTINE_BYTES_MAX - 1), redis.call('STRLEN', key)
  end
  local size = redis.pcall('MEMORY', 'USAGE', key)
  if type(size) ~= 'number' then
    return '', 0
  end
  -- DUMP copies the whole value, so a large one is only measured.
  return size <= 16 * QUARANTINE_BYTES_MAX and dump_of(key) or '', size
end

-- Move what cannot be a job out of the queue, into a hash that operators read (quarantine.py).
local function set_aside(queue, id, reason)
  local key = queue .. QUARANTINE
  local held = redis.pcall('HLEN', key)
  if type(held) ~= 'number' then
    redis.call('DEL', key)
    held = 0
  end
  if held >= QUARANTINE_MAX then
    if type(redis.pcall('HINCRBY', key, 'dropped', 1)) ~= 'number' then
      redis.call('HSET', key, 'dropped', 1)  -- what was there is no count
    end
  else
    local type_name = redis.call('TYPE', JOB .. id).ok
    local body, size = '', 0
    if type_name ~= 'none' then
      body, size = beginning_of(JOB .. id, type_name)
    end
    local field = #id <= 256 and hex(id) or ('sha1-' .. redis.sha1hex(id))
    redis.call('HSET', key, field, cjson.encode({
      id = hex(id), reason = reason, at_ms = string.format('%.0f', now_ms()),
      type = type_name, body = hex(body), size = size
    }))
  end
  redis.call('ZREM', queue, id)
  redis.call('UNLINK', JOB .. id, IN_PROGRESS .. id, RETRY .. id, UNKNOWN .. id, CLAIMS .. id)
  read('ZREM', ABORTS, id)
end
