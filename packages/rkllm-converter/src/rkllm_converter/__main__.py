from rkllm_converter.cli.main import main

raise SystemExit(main())
