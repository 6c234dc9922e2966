-- Users for wrk: what the workloads in this folder share.
--
-- wrk asks for "a request" without saying for which connection, so a user cannot be a connection.  Here a user is a
-- position in a list of steps, and takes its next step only after the answer to its last one has come.  wrk sends
-- in the order in which answers came, so that a user also stays on its connection; nothing rests on that.
--
-- Each thread talks to one node: with ENDPOINTS=url,url,url in the environment, thread 1 to the first, thread 2 to
-- the second and so on, so give as many threads (-t) as there are endpoints, or a multiple, and connections (-c) a
-- multiple of the threads.  Without ENDPOINTS all go to the URL on the command line.
--
-- done() prints one line, RESULT and a JSON object: what `python -m benchmarks` reads.

local users = {}

local KEYS = "/v2/keys/"
local FORM = { ["Content-Type"] = "application/x-www-form-urlencoded" }
local LONGEST_VALUE = 3 -- digits of the values, 1 to 100

-- The steps of a user: 100 x (PUT value=i, GET), then DELETE.  A number is a PUT of that value.
users.MIXED = {}
for value = 1, 100 do
   users.MIXED[#users.MIXED + 1] = value
   users.MIXED[#users.MIXED + 1] = "GET"
end
users.MIXED[#users.MIXED + 1] = "DELETE"

users.PUTS = {}
for value = 1, 100 do
   users.PUTS[value] = value
end

-- A queue whose indices start again whenever it is empty, so that they stay small.
local function queue()
   local items, head, tail = {}, 1, 0
   local function push(item)
      tail = tail + 1
      items[tail] = item
   end
   local function pop()
      if head > tail then
         return nil
      end
      local item = items[head]
      items[head] = nil
      head = head + 1
      if head > tail then
         head, tail = 1, 0
      end
      return item
   end
   return push, pop
end

-- All requests on one key, formatted once.  A PUT is a head that fits the number of digits, and the value; with a size
-- (bytes, more than the digits of any value), it is filled up with dots.
local function requests_on(key, size)
   local path = KEYS .. key
   local made = { GET = wrk.format("GET", path), DELETE = wrk.format("DELETE", path), PUT = {}, FILL = {} }
   for digits = 1, LONGEST_VALUE do
      local headers = { ["Content-Type"] = FORM["Content-Type"] }
      local length = size or digits
      made.PUT[digits] = wrk.format("PUT", path, headers, "value=" .. ("0"):rep(length)):sub(1, -length - 1)
      made.FILL[digits] = ("."):rep(length - digits)
   end
   return made
end

local function render(requests, step)
   if type(step) ~= "number" then
      return requests[step]
   end
   local digits = step < 10 and 1 or step < 100 and 2 or 3
   return requests.PUT[digits] .. step .. requests.FILL[digits]
end

-- What a thread counts; done() collects it.  Globals, because wrk's thread:get() reads globals only.
statuses = {}
wrong = 0

local function count(status)
   statuses[status] = (statuses[status] or 0) + 1
end

-- Each user has a key of its own, and the answer names it: so it is known whose answer came.
function users.with_own_keys(workload, steps, size)
   local push, pop = queue()
   local requests, position = {}, {}
   local pattern = '"/' .. workload:gsub("%-", "%%-") .. '%-%d+%-(%d+)"'
   local find, tonumber = string.find, tonumber

   function request()
      local user = pop()
      if not user then -- at the start; later only when an answer got lost or named no key
         user = #requests + 1
         requests[user] = requests_on(workload .. "-" .. node .. "-" .. user, size)
         position[user] = 0
      end
      local step = position[user] % #steps + 1
      position[user] = step
      return render(requests[user], steps[step])
   end

   function response(status, _, body)
      count(status)
      local _, _, name = find(body, pattern)
      local user = tonumber(name)
      if not user then
         return
      end
      if status < 300 and steps[position[user]] == "GET" then -- a user reads what it wrote just before
         local _, _, value = find(body, '"value":"(%d+)"')
         if tonumber(value) ~= steps[position[user] - 1] then
            wrong = wrong + 1
         end
      end
      push(user)
   end
end

-- All users share one key, so an answer does not say whose it is.  Its action says which kind of step is done, and
-- users that wait for the same kind of step are alike: the one that has waited longest gets it.
function users.with_one_key(workload, steps)
   local push, pop = queue()
   local wait, waited = {}, {}
   wait.PUT, waited.PUT = queue()
   wait.GET, waited.GET = queue()
   wait.DELETE, waited.DELETE = queue()
   local position, requests = {}, nil
   local kinds = { ['{"action":"s'] = "PUT", ['{"action":"g'] = "GET", ['{"action":"d'] = "DELETE" }
   local sub, type = string.sub, type

   function request()
      requests = requests or requests_on(workload)
      local user = pop()
      if not user then
         user = #position + 1
         position[user] = 0
      end
      local step = position[user] % #steps + 1
      position[user] = step
      local what = steps[step]
      wait[type(what) == "number" and "PUT" or what](user)
      return render(requests, what)
   end

   function response(status, _, body)
      count(status)
      local kind = kinds[sub(body, 1, 12)]
      local user
      if kind then
         user = waited[kind]()
      elseif status == 404 then -- another user's DELETE came first: an answer to a GET or a DELETE
         user = waited.GET() or waited.DELETE()
      end
      if user then
         push(user)
      end
   end
end

-- GETs of the keys WORKLOAD-1, WORKLOAD-2 and so on, in turn; they do not wait for each other.
function users.reading(workload, keys, query)
   local requests, turn = {}, 0

   function request()
      turn = turn % keys + 1
      requests[turn] = requests[turn] or wrk.format("GET", KEYS .. workload .. "-" .. turn .. (query or ""))
      return requests[turn]
   end

   function response(status)
      count(status)
   end
end

-- A thread a node: choose its address, and remember it for done().
local threads = {}

local function endpoints()
   local found = {}
   for host, port in (os.getenv("ENDPOINTS") or ""):gmatch("https?://([^:/,]+):(%d+)") do
      local address = wrk.lookup(host, port)[1]
      if not address or not wrk.connect(address) then
         error("no connection to " .. host .. ":" .. port .. " of ENDPOINTS")
      end
      found[#found + 1] = { address = address, name = host .. ":" .. port }
   end
   return found
end

local nodes

function setup(thread)
   nodes = nodes or endpoints()
   threads[#threads + 1] = thread
   local number = #threads
   thread:set("node", number)
   if #nodes > 0 then
      thread.addr = nodes[(number - 1) % #nodes + 1].address
   end
end

local function encode(counts)
   local parts = {}
   for name, number in pairs(counts) do
      parts[#parts + 1] = string.format('"%s":%d', name, number)
   end
   return "{" .. table.concat(parts, ",") .. "}"
end

function done(summary, latency)
   local all, each, mistakes = {}, {}, 0
   for number, thread in ipairs(threads) do
      local name = #nodes > 0 and nodes[(number - 1) % #nodes + 1].name or "all"
      for status, times in pairs(thread:get("statuses")) do
         all[status] = (all[status] or 0) + times
         each[name] = (each[name] or 0) + times
      end
      mistakes = mistakes + thread:get("wrong")
   end
   local lost = summary.errors.connect + summary.errors.read + summary.errors.write
   print(string.format(
      'RESULT {"requests":%d,"seconds":%.6f,"p50_us":%d,"p90_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d,'
         .. '"mean_us":%.1f,"socket_errors":%d,"timeouts":%d,"wrong_values":%d,"statuses":%s,"per_node":%s}',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9),
      latency.max, latency.mean, lost, summary.errors.timeout, mistakes, encode(all), encode(each)
   ))
end

return users
