-- A key for each user; each repeats PUTs of 10,000 bytes, 1... to 100...
--
--   ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \
--     wrk -t3 -c96 -d10s --latency -s benchmarks/wrk/put-10kb.lua http://127.0.0.1:8001

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local users = dofile(here .. "users.lua")

users.with_own_keys("put-10kb", users.PUTS, 10000)
