-- A key for each user; each repeats 100 x (PUT value=i, GET), then DELETE.  A GET must return what its user has just
-- written: where it does not, RESULT counts it in wrong_values.
--
--   ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \
--     wrk -t3 -c96 -d10s --latency -s benchmarks/wrk/random-data.lua http://127.0.0.1:8001

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local users = dofile(here .. "users.lua")

users.with_own_keys("random-data", users.MIXED)
