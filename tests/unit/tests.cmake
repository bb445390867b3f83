# unit_test(name layers...)
unit_test(kv index common)
