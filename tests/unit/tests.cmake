# unit_test(name layers...)
unit_test(kv index common)
unit_test(config common PkgConfig::JANSSON)
fuzzer(options common)
