# unit_test(name layers...)
