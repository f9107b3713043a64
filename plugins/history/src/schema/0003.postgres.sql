-- Writers are kept out first, and then those that claim deliveries: they and this step would wait for each other.
LOCK TABLE boot IN ACCESS EXCLUSIVE MODE
----
LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE
