"""Many runs: compared, put into tables and figures, and shown on a page.

Names are where their files are: `ftp_cl.study.loading` reads results, `aggregate` groups them by seed, `tables` and
`write` make reports; `plan`, `compare`, `store` and `plan_tables` are what `ftp-cl compare` does.
"""
