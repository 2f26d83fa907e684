std = "lua54"
ignore = { "581" } -- not (x < y) is meant as written: it is true of NaN
files["spec"] = { std = "+busted" }
exclude_files = { "build*", "tree", "lua_modules", "spec/golden" }
